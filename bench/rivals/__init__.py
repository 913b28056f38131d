"""What Pricebook is compared with."""
