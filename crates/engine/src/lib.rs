//! Tokens in; residuals, distributions and answers out, many edited copies in one batch.
