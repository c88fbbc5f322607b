"""What one device sends of a slowly changing tensor: the compressed change against what all others hold already."""
