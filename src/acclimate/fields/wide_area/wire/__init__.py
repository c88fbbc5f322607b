"""What training sends over links: chosen entries, and the packets around them."""
