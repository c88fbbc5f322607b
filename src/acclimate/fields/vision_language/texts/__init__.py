"""What stands for a class: prompts, descriptions, and the text matrix made of them."""
