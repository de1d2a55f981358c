"""Take heads and neurons out of an encoder, and refit what reads them."""
