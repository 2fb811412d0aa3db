"""What a sweep has computed: its file, its exports, and checks of both."""
