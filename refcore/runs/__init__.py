"""One run from words to files: composed, claimed, looped, watched, finished."""
