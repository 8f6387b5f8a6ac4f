"""The `owlv2` referee, and the probabilities of counts and relations that it is made of."""
