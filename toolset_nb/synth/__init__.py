"""Training rows that are true by construction: a call is made up from a real vault, executed, and then worded as a request.

worlds: what a vault offers to talk about; scenarios: right calls for every tool; wording: requests and context in the voices of
datasets/voices; generate: execution, checks, the funnel and the files.
"""
