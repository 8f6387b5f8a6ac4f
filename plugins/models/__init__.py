"""What several plugins share: networks in their libraries' layouts, heads, preprocessing, and diffusion's maths."""
