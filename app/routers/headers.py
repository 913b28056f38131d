"""Names of the headers that answers carry."""

SEQ = "Pricebook-Seq"
RECORDED_AT = "Pricebook-Recorded-At"
ETAG = "ETag"
LOCATION = "Location"
CACHE_CONTROL = "Cache-Control"
CONTENT_DISPOSITION = "Content-Disposition"
