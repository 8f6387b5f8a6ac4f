"""The plugins that ship with refcore, registered through the same entry-point group that any other package uses."""
