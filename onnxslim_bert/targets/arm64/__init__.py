"""The CPU provider of 64-bit ARM, under an emulator: answers are those of such a CPU, times mean nothing."""
