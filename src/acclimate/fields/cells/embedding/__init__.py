"""Codes that look past the laboratory: autoencoders of feature maps that draw the cell and align means."""
