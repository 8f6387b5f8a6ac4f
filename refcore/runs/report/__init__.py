"""The report of a run: pictures and scores recorded on its way, and the pages that show and compare runs."""
