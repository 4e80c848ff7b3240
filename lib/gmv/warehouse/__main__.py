from gmv import warehouse

warehouse.write()
