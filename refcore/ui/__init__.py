"""The page of `refcore ui`: runs that are started, watched, steered and compared in a browser. Needs the extra `ui`."""
