//! Text in: prompt files, chat templates, tokenizers.
