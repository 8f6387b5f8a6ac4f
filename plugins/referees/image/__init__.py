"""Referees that compare with a reference image: `image`, its DINOv2 features, and `image-layers`."""
