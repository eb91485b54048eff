SELECT @schema@.publish_sent($1, $2, $3, $4, $5, $6, $7, $8)
