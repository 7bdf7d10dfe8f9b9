"""An edge as a row of tokens, for language models: ``[CLS] nodes [SEP]``. Token ids are four marks, then the nodes."""

# PAD is 0 because RoBERTa and its kin count positions from the id of PAD.
PAD_ID, CLS_ID, SEP_ID, MASK_ID, NUM_MARKS = range(5)
