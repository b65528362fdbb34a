"""Alerts: takes signals from the other services, makes one alert of those that mean the same, and tells people.

Owns alerts, channels and notifications. A notification is one alert on its way through one channel; it is delivered at
least once, always under the same id, and every attempt is in its record.
"""
