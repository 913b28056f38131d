"""What it takes to run Pricebook, apart from the service itself."""
