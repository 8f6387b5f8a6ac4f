"""The trackers that come with refcore, each for a tool of its own."""
