"""Several models' answers as one."""
