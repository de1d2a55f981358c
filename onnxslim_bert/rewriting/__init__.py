"""What passes are made of: their contract and options, trials on calibration rows, and what several passes share."""
