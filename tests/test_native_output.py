"""What is written past Python is kept, and the streams come back."""

import os
import subprocess
import sys

import pytest

from onnxslim_bert.native_output import native_output


def test_both_streams_are_kept_and_come_back(capfd):
    """Also when the block fails."""
    print("before")
    with pytest.raises(ValueError, match="stop"), native_output() as caught:  # noqa: PT012
        os.write(1, b"library\n")
        os.write(2, b"log\n")
        raise ValueError("stop")
    print("after")
    assert caught.text == "library\nlog\n"
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_a_child_process_writes_there_too(capfd):
    """File descriptors are inherited."""
    with native_output() as caught:
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    assert caught.text == "child\n"
    assert capfd.readouterr().out == ""
