"""Billing owns customers, plans, subscriptions, invoices and the double-entry ledger.

It closes periods (usage seals them), prices the sealed totals, freezes invoices and hands them to payments.
"""
