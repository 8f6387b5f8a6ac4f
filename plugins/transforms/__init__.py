"""The transforms that ship with refcore: changes of gradients, and of parameters after an update."""
