"""`image-uploads check`: every setting, dependency and right is looked at, and what is wrong comes with its mend."""
