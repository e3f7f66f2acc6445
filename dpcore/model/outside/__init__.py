"""Networks from elsewhere: timm's, and a user's own."""
