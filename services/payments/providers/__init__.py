"""Payment providers behind one interface (base.py); each passes tests/payments/provider_contract.py."""
