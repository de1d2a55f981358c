"""A zoo of models, re-optimized in one resumable run: models x recipes x targets."""
