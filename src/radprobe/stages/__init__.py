"""One thin module per verb: reads artifacts, calls the rooms, writes artifacts."""
