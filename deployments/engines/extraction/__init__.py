"""Files to plain text: text, Markdown, HTML, PDF, DOCX, XLSX and PPTX."""
