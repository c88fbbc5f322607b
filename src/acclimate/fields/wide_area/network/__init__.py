"""Measuring a link from the messages that it carried."""
