"""The methods that are compared, each a `personalizer.Personalizer`."""
