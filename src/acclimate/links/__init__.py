"""Links whose bandwidth changes: traces, and clocks that replay them without waiting."""
