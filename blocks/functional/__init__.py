"""Operations and facts that several blocks share: linear products, dtypes of delicate steps, initial distributions."""
