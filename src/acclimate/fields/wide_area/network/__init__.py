"""Links whose bandwidth changes: traces, virtual clocks, and measuring a link from the messages it carried."""
