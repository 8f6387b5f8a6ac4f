"""Code that several plugins share: networks in their libraries' formats, losses, preprocessing, diffusion equations."""
