SELECT epoch, last, positioned, more FROM @schema@.advance()
