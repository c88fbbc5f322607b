"""What goes over the links: chosen entries, packets, and transports that gather one packet of every rank."""
