"""The commands of `acclimate cells`."""
