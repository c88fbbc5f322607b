"""Every registered method against every promise of the library."""
