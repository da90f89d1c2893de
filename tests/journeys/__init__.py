"""Whole journeys, of users and of attackers."""
