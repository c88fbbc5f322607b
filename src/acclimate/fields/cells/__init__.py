"""White blood cells across laboratories: segmented, embedded, classified, adapted."""
