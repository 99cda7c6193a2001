"""pairform"""
