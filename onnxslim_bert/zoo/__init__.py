"""A zoo: many models made small by many recipes for many targets in one run, which can be stopped and resumed."""
