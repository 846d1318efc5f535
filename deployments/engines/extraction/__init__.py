"""Files to plain text: text, Markdown, HTML, PDF and DOCX."""
