"""What an audit looks like: a page, a picture, a command."""
