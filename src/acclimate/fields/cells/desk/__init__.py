"""What `acclimate cells` does for people at a microscope: train, answer, tell; no command line in here."""
