"""The gateway: the one HTTP door to the four services.

REST is transcoded at run time from the `google.api.http` annotations of the contract; the OpenAPI document and the
documentation page are read off the same annotations and the contract's comments. The gateway keeps no state.
"""
